"""TensorBoard, if it is installed: validations as scalars in `RUN/tensorboard`."""

import os
import socket
import time
from importlib.util import find_spec
from pathlib import Path

from gradpot.train.loop import Watch
from gradpot.train.state import State


def with_board(watch: Watch, out: Path) -> Watch:
    """Call `watch` and, if TensorBoard is installed, write each validation's row for it.

    The records are written here and now. TensorBoard's own writer has a thread, which ends with a
    traceback when the folder is deleted or the disk is full.
    """
    if find_spec("tensorboard") is None:
        return watch
    from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[attr-defined]
    from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[attr-defined]
    from tensorboard.summary.writer.record_writer import RecordWriter

    host = f"{int(time.time())}.{socket.gethostname()}.{os.getpid()}"
    path = out / "tensorboard" / f"events.out.tfevents.{host}"

    def append(*events: Event) -> None:
        with open(path, "ab") as file:
            for event in events:
                RecordWriter(file).write(event.SerializeToString())

    def both(state: State, done: float, row: dict | None) -> None:
        watch(state, done, row)
        if not row:
            return
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            append(Event(wall_time=time.time(), file_version="brain.Event:2"))
        scalars = {"train_loss": row["train_loss"], "learning_rate": row["learning_rate"]}
        scalars |= {f"valid/{key}": value for key, value in row["valid"].items()}
        values = [Summary.Value(tag=k, simple_value=v) for k, v in scalars.items() if v is not None]
        append(Event(wall_time=time.time(), step=row["step"], summary=Summary(value=values)))

    return both
