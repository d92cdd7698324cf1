# pyright: reportAttributeAccessIssue=false
# The modules that protobuf generates have no types.
"""TensorBoard events in the run's own folder: scalars, figures, sound, text, and one HParams session."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from google_crc32c import value as crc32c

from dl_lab.runs.board import HParam
from dl_lab.types import Metrics, UserError

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from tensorboard.compat.proto.summary_pb2 import Summary


class TensorBoard:
    """Writes TensorBoard events beside the run's records.

    The HParams session follows the plugin's own protocol: its start holds the hyperparameters, its end the status. It
    lies in the run's folder, so that its metrics are the run's scalars, without an extra run or copies.

    This class writes events directly, not with torch's writer in a thread: a full disk is noticed at once (UserError),
    and an event takes a third of the time. A library computes their checksums. TensorBoard's own writer computes them
    byte by byte in Python, which takes 10 ms for a figure of 60 kB.
    """

    imports = (
        "tensorboard.compat.proto.event_pb2",
        "tensorboard.plugins.hparams.plugin_data_pb2",
        "tensorboard.plugins.text.metadata",
    )

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None
        self._session: tuple[Path, dict[str, HParam], float] | None = None  # folder, hyperparameters, start time
        self._texts: dict[str, str] = {}
        self._has_layout = False

    def another(self) -> TensorBoard:
        """Return a new logger."""
        return TensorBoard()

    def start(self, folder: Path, hparams: Mapping[str, HParam], config_text: str) -> None:
        """Remember the facts of the session. The first record, after the first step, opens the file."""
        plain = {key: value for key, value in hparams.items() if isinstance(value, bool | int | float | str)}
        self._session = (folder, plain, time.time())
        self._texts = {"config": "    " + config_text.replace("\n", "\n    ")}

    def scalars(self, values: Metrics, step: int) -> None:
        """Write all values in one event."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        if not self._has_layout and any(name.startswith("val/") for name in values):
            self._has_layout = True
            self._write([_layout(list(values))])
        self._write([Summary.Value(tag=tag_of(name), simple_value=value) for name, value in values.items()], step)
        self.flush()

    def series(self, name: str, values: Sequence[tuple[int, float]]) -> None:
        """Write the values of one scalar at many steps."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        for step, value in values:
            self._write([Summary.Value(tag=tag_of(name), simple_value=value)], step)
        self.flush()

    def image(self, name: str, png: bytes, step: int) -> None:
        """Write a PNG."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        width = int.from_bytes(png[16:20], "big")  # PNG's IHDR
        height = int.from_bytes(png[20:24], "big")
        image = Summary.Image(encoded_image_string=png, colorspace=4, width=width, height=height)
        self._write([Summary.Value(tag=f"{PICTURES}/{name}", image=image)], step)
        self.flush()

    def audio(self, name: str, wav: bytes, sample_rate: int, n_samples: int, step: int) -> None:
        """Write a mono WAV file to listen to."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        audio = Summary.Audio(
            sample_rate=sample_rate,
            num_channels=1,
            length_frames=n_samples,
            encoded_audio_string=wav,
            content_type="audio/wav",
        )
        self._write([Summary.Value(tag=name, audio=audio)], step)
        self.flush()

    def text(self, name: str, markdown: str, step: int = 0) -> None:
        """Write a text in Markdown. Before the first record, it waits for the session's start."""
        if self._file is None:
            self._texts[name] = markdown
        else:
            self._write([_text(name, markdown)], step)

    def embedding(self, name: str) -> None:
        """Add the vectors and labels that `Run.embedding` wrote to the config that the projector's plugin reads."""
        from google.protobuf import text_format
        from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

        assert self._session is not None, "start() comes first"
        path = self._session[0] / "projector_config.pbtxt"
        new = path.with_name(f".{path.name}.tmp")
        config = ProjectorConfig()
        if path.exists():
            text_format.Parse(path.read_text(encoding="utf-8"), config)
        if all(known.tensor_name != name for known in config.embeddings):
            tables = f"projector/{name}"
            config.embeddings.add(tensor_name=name, tensor_path=f"{tables}.tsv", metadata_path=f"{tables}_labels.tsv")
        with _report_full_disk():
            new.write_text(text_format.MessageToString(config), encoding="utf-8")
            os.replace(new, path)

    def flush(self) -> None:
        """Write everything so far to the disk."""
        if self._file is not None:
            with _report_full_disk():
                self._file.flush()

    def finish(self, ok: bool) -> None:
        """Write the end of the session, and close the file."""
        if self._session is None:
            return
        try:
            self._write([session_end(ok, time.time())])
        finally:
            file = self._file
            self._file = None
            self._session = None
            if file is not None:
                with _report_full_disk():
                    file.close()

    # -- the event file ---------------------------------------------------------------------------------------

    def _write(self, values: Sequence[Summary.Value], step: int = 0) -> None:
        """Write one event. The first one opens the file."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        with _report_full_disk():
            if self._file is None:
                self._open()
            self._event(step=step, summary=Summary(value=values))

    def _open(self) -> None:
        """Begin an event file with the session's start. A resumed run continues its session in a file of its own."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        assert self._session is not None, "start() comes first"
        folder, hparams, begun = self._session
        older = len(list(folder.glob("events.out.tfevents.*")))
        name = f"events.out.tfevents.{time.time():010.0f}.{socket.gethostname()}.{os.getpid()}.{older}"
        self._file = open(folder / name, "xb")  # noqa: SIM115  (finish closes it)
        self._event(file_version="brain.Event:2")
        if not older:
            self._event(summary=Summary(value=[session_start(hparams, begun)]))
            self._event(summary=Summary(value=[_text(name, text) for name, text in self._texts.items()]))

    def _event(self, **content: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        assert self._file is not None
        self._file.write(record(Event(wall_time=time.time(), **content).SerializeToString()))


@contextlib.contextmanager
def _report_full_disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"Cannot write the TensorBoard events: {error.strerror}.") from error


PICTURES = "pictures"


def tag_of(name: str) -> str:
    """Return the tag of a metric. TensorBoard groups metrics by the first part of their tags and sorts the groups.

    So training and validation of one metric stand side by side (loss/train, loss/val). The metrics come first.
    Pictures, speed, the final values and the one look at test come after them.
    """
    head, _, rest = name.partition("/")
    if rest and head in ("train", "val"):
        return f"{rest}/{head}"
    if rest and head == "step":
        return f"{rest}/running"
    if rest and head == "final":
        return f"summary/{rest}"
    return name


def _layout(names: Sequence[str]) -> Summary.Value:
    """Return the Custom Scalars page: a chart of training and validation for each metric, the loss first."""
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.plugins.custom_scalar import layout_pb2

    measures = dict.fromkeys(name.partition("/")[2] for name in names if name.startswith(("train/", "val/")))
    charts = []
    for measure in sorted(measures, key=lambda measure: (measure != "loss", measure != "accuracy")):
        lines = layout_pb2.MultilineChartContent(tag=[f"^{re.escape(measure)}/(train|val)$"])
        charts.append(layout_pb2.Chart(title=measure, multiline=lines))
    category = layout_pb2.Category(title="training and validation", chart=charts)
    content = layout_pb2.Layout(category=[category]).SerializeToString()
    about = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="custom_scalars"))
    tensor = TensorProto(dtype="DT_STRING", string_val=[content])
    return Summary.Value(tag="custom_scalars__config__", metadata=about, tensor=tensor)


def record(data: bytes) -> bytes:
    """Return a TFRecord: length, its checksum, the data, their checksum (tensorflow/core/lib/io/record_writer.h)."""
    length = struct.pack("<Q", len(data))
    return length + _mask_crc(length) + data + _mask_crc(data)


def _mask_crc(data: bytes) -> bytes:
    """Return TensorFlow's masked CRC-32C of some bytes."""
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def session_start(hparams: Mapping[str, HParam], time_: float) -> Summary.Value:
    """Return the start of a session in the HParams plugin's protocol.

    It names no group, so the page calls the session as TensorBoard calls the run: "lr=0.01 seed=1" under the links of
    `dl-lab tensorboard SWEEP`. TensorBoard's own function (plugins/hparams/summary_v2.py) takes 40 ms to import.

    Args:
        hparams: The hyperparameters by name.
        time_: Seconds since the epoch of Unix.
    """
    from tensorboard.plugins.hparams.plugin_data_pb2 import SessionStartInfo

    start = SessionStartInfo(start_time_secs=time_)
    for key, value in hparams.items():
        if isinstance(value, bool):
            start.hparams[key].bool_value = value
        elif isinstance(value, str):
            start.hparams[key].string_value = value
        else:
            start.hparams[key].number_value = value
    return _of_session("session_start_info", start)


def session_end(ok: bool, time_: float) -> Summary.Value:
    """Return the end of a session in the HParams plugin's protocol."""
    from tensorboard.plugins.hparams import api_pb2
    from tensorboard.plugins.hparams.plugin_data_pb2 import SessionEndInfo

    status = api_pb2.STATUS_SUCCESS if ok else api_pb2.STATUS_FAILURE
    return _of_session("session_end_info", SessionEndInfo(status=status, end_time_secs=time_))


def columns_event(settings: Mapping[str, bool], metrics: Sequence[str]) -> bytes:
    """Return the event that chooses the columns of the HParams page.

    Args:
        settings: Hyperparameter -> whether all its values are numbers.
        metrics: The final metrics by name ("val/accuracy"), in the order of their columns.
    """
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import api_pb2

    kinds = {True: api_pb2.DATA_TYPE_FLOAT64, False: api_pb2.DATA_TYPE_STRING}
    infos = [api_pb2.HParamInfo(name=name, type=kinds[is_number], differs=True) for name, is_number in settings.items()]
    tags = {name: tag_of(f"final/{name}") for name in metrics}
    shown = [api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag), display_name=name) for name, tag in tags.items()]
    experiment = api_pb2.Experiment(hparam_infos=infos, metric_infos=shown)
    return record(Event(summary=Summary(value=[_of_session("experiment", experiment)])).SerializeToString())


def _of_session(what: str, info: Message) -> Summary.Value:
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    content = HParamsPluginData(version=0, **{what: info}).SerializeToString()
    about = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="hparams", content=content))
    nothing = TensorProto(dtype="DT_FLOAT", tensor_shape=TensorShapeProto(dim=[TensorShapeProto.Dim(size=0)]))
    return Summary.Value(tag=f"_hparams_/{what}", metadata=about, tensor=nothing)


def _text(name: str, markdown: str) -> Summary.Value:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
    from tensorboard.plugins.text import metadata

    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
    tensor = TensorProto(dtype="DT_STRING", string_val=[markdown.encode()], tensor_shape=shape)
    return Summary.Value(tag=name, metadata=metadata.create_summary_metadata(name, ""), tensor=tensor)
