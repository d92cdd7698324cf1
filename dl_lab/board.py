# pyright: reportAttributeAccessIssue=false
# (the modules that protobuf generates have no types)
"""TensorBoard events in the run's own folder: scalars, figures, text, and one filled HParams session."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dl_lab.types import Metrics

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TensorBoard:
    """Writes TensorBoard events beside the run's records.

    The HParams session follows the plugin's own protocol (session start with the hyperparameters, session end
    with the status) in the run's folder, so that its metrics are the run's scalars: no extra run, no copies.
    """

    def __init__(self) -> None:
        self._writer: SummaryWriter | None = None
        self._session: tuple[Path, dict[str, Any], str] | None = None

    def start(self, folder: Path, hparams: Mapping[str, Any], config_text: str) -> None:
        """Remember what the session is about; the file is opened at the first record, after the first step."""
        plain = {key: value for key, value in hparams.items() if isinstance(value, bool | int | float | str)}
        self._session = (folder, plain, config_text)

    def _events(self) -> Any:
        """The event file, opened with the session's start; a resumed run continues its session."""
        if self._writer is None:
            assert self._session is not None, "start() comes first"
            from torch.utils.tensorboard import SummaryWriter

            folder, hparams, config_text = self._session
            resuming = any(folder.glob("events.out.tfevents.*"))
            self._writer = SummaryWriter(str(folder))
            if not resuming:
                from tensorboard.plugins.hparams import summary_v2

                self._writer._get_file_writer().add_summary(summary_v2.hparams_pb(hparams, trial_id=folder.name))
                self._writer.add_text("config", "    " + config_text.replace("\n", "\n    "), 0)
        return self._writer._get_file_writer()

    def scalars(self, values: Metrics, step: int) -> None:
        """All values in one event: a tenth of the cost of one `add_scalar` each."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        entries = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._events().add_summary(Summary(value=entries), step)

    def series(self, name: str, values: Sequence[tuple[int, float]]) -> None:
        """A scalar of many steps at once."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        wall_time, writer = time.time(), self._events().event_writer
        for step, value in values:
            summary = Summary(value=[Summary.Value(tag=name, simple_value=value)])
            writer.add_event(Event(wall_time=wall_time, step=step, summary=summary))

    def image(self, name: str, png: bytes, step: int) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        width, height = int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")  # PNG's IHDR
        image = Summary.Image(encoded_image_string=png, colorspace=4, width=width, height=height)
        self._events().add_summary(Summary(value=[Summary.Value(tag=name, image=image)]), step)

    def flush(self) -> None:
        if self._writer is not None:
            self._writer.flush()

    def finish(self, ok: bool) -> None:
        if self._session is None:
            return
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

        status = api_pb2.STATUS_SUCCESS if ok else api_pb2.STATUS_FAILURE
        end = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=time.time())
        about = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(session_end_info=end))
        value = Summary.Value(tag=metadata.SESSION_END_INFO_TAG, metadata=about, tensor=metadata.NULL_TENSOR)
        self._events().add_summary(Summary(value=[value]))
        if self._writer is not None:
            self._writer.close()
        self._writer = self._session = None
