# pyright: reportAttributeAccessIssue=false
# (the modules that protobuf generates have no types)
"""TensorBoard events in the run's own folder: scalars, figures, sound, text, and one filled HParams session."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from google_crc32c import value as crc32c

from dl_lab.types import Metrics, UserError


class TensorBoard:
    """Writes TensorBoard events beside the run's records.

    The HParams session follows the plugin's own protocol (session start with the hyperparameters, session end
    with the status) in the run's folder, so that its metrics are the run's scalars: no extra run, no copies.
    Events are written here and now, not by torch's writer in a thread: a full disk is noticed where it happens
    (UserError), and an event costs a third. Their checksums are not computed byte by byte in Python, as tensorboard's
    own writer does (10 ms for a figure of 60 kB).
    """

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None
        self._session: tuple[Path, dict[str, Any], float] | None = None  # folder, hyperparameters, begin
        self._texts: dict[str, str] = {}

    def start(self, folder: Path, hparams: Mapping[str, Any], config_text: str) -> None:
        """Remember what the session is about; the file is opened at the first record, after the first step."""
        plain = {key: value for key, value in hparams.items() if isinstance(value, bool | int | float | str)}
        self._session = (folder, plain, time.time())
        self._texts = {"config": "    " + config_text.replace("\n", "\n    ")}

    def scalars(self, values: Metrics, step: int) -> None:
        """All values in one event instead of one event each."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        self._write([Summary.Value(tag=name, simple_value=value) for name, value in values.items()], step)
        self.flush()

    def series(self, name: str, values: Sequence[tuple[int, float]]) -> None:
        """A scalar of many steps at once."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        for step, value in values:
            self._write([Summary.Value(tag=name, simple_value=value)], step)
        self.flush()

    def image(self, name: str, png: bytes, step: int) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        width, height = int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")  # PNG's IHDR
        image = Summary.Image(encoded_image_string=png, colorspace=4, width=width, height=height)
        self._write([Summary.Value(tag=name, image=image)], step)
        self.flush()

    def audio(self, name: str, wav: bytes, sample_rate: int, n_samples: int, step: int) -> None:
        """A mono WAV file to listen to."""
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
        """Text in Markdown; before the first step it waits for the session's start."""
        if self._file is None:
            self._texts[name] = markdown
        else:
            self._write([_text(name, markdown)], step)

    def embedding(self, name: str) -> None:
        """Tell the projector of the vectors and labels that `Run.embedding` wrote: its plugin looks for a config."""
        from google.protobuf import text_format
        from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

        assert self._session is not None, "start() comes first"
        path = self._session[0] / "projector_config.pbtxt"
        config, new = ProjectorConfig(), path.with_name(f".{path.name}.tmp")
        if path.exists():
            text_format.Parse(path.read_text(encoding="utf-8"), config)
        if all(known.tensor_name != name for known in config.embeddings):
            tables = f"projector/{name}"
            config.embeddings.add(tensor_name=name, tensor_path=f"{tables}.tsv", metadata_path=f"{tables}_labels.tsv")
        self._guarded(lambda: new.write_text(text_format.MessageToString(config), encoding="utf-8"))
        self._guarded(lambda: os.replace(new, path))

    def flush(self) -> None:
        if self._file is not None:
            self._guarded(self._file.flush)

    def finish(self, ok: bool) -> None:
        if self._session is None:
            return
        try:
            self._write([session_end(ok, time.time())])
        finally:
            file, self._file, self._session = self._file, None, None
            if file is not None:
                self._guarded(file.close)

    # -- the event file ---------------------------------------------------------------------------------------

    def _write(self, values: Sequence[Any], step: int = 0) -> None:
        """One event; the first one opens the file."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        if self._file is None:
            self._guarded(self._open)
        self._guarded(lambda: self._event(step=step, summary=Summary(value=values)))

    def _open(self) -> None:
        """A new event file, with the session's start; a resumed run continues its session in a file of its own."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        assert self._session is not None, "start() comes first"
        folder, hparams, begun = self._session
        older = len(list(folder.glob("events.out.tfevents.*")))
        name = f"events.out.tfevents.{time.time():010.0f}.{socket.gethostname()}.{os.getpid()}.{older}"
        self._file = open(folder / name, "xb")  # noqa: SIM115  (finish closes it)
        self._event(file_version="brain.Event:2")
        if not older:
            self._event(summary=Summary(value=[session_start(hparams, folder.name, begun)]))
            self._event(summary=Summary(value=[_text(name, text) for name, text in self._texts.items()]))

    def _event(self, **content: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        assert self._file is not None
        self._file.write(record(Event(wall_time=time.time(), **content).SerializeToString()))

    def _guarded(self, act: Any) -> None:
        try:
            act()
        except OSError as error:
            raise UserError(f"Cannot write the TensorBoard events: {error.strerror}.") from error


def record(data: bytes) -> bytes:
    """A TFRecord: length, its checksum, the data, their checksum (tensorflow/core/lib/io/record_writer.h)."""
    length = struct.pack("<Q", len(data))
    return length + _masked_crc(length) + data + _masked_crc(data)


def _masked_crc(data: bytes) -> bytes:
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def session_start(hparams: Mapping[str, bool | int | float | str], name: str, time_: float) -> Any:
    """The HParams plugin's protocol; tensorboard's own (plugins/hparams/summary_v2.py) takes 40 ms to import."""
    from tensorboard.plugins.hparams.plugin_data_pb2 import SessionStartInfo

    start = SessionStartInfo(group_name=name, start_time_secs=time_)
    for key, value in hparams.items():
        kind = "bool" if isinstance(value, bool) else "string" if isinstance(value, str) else "number"
        setattr(start.hparams[key], f"{kind}_value", value)
    return _of_session("session_start_info", start)


def session_end(ok: bool, time_: float) -> Any:
    from tensorboard.plugins.hparams import api_pb2
    from tensorboard.plugins.hparams.plugin_data_pb2 import SessionEndInfo

    status = api_pb2.STATUS_SUCCESS if ok else api_pb2.STATUS_FAILURE
    return _of_session("session_end_info", SessionEndInfo(status=status, end_time_secs=time_))


def _of_session(what: str, info: Any) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    content = HParamsPluginData(version=0, **{what: info}).SerializeToString()
    about = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="hparams", content=content))
    nothing = TensorProto(dtype="DT_FLOAT", tensor_shape=TensorShapeProto(dim=[TensorShapeProto.Dim(size=0)]))
    return Summary.Value(tag=f"_hparams_/{what}", metadata=about, tensor=nothing)


def _text(name: str, markdown: str) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
    from tensorboard.plugins.text import metadata

    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
    tensor = TensorProto(dtype="DT_STRING", string_val=[markdown.encode()], tensor_shape=shape)
    return Summary.Value(tag=name, metadata=metadata.create_summary_metadata(name, ""), tensor=tensor)
