"""TensorBoard, if it is installed: validations as scalars in `RUN/tensorboard`."""

from importlib.util import find_spec
from pathlib import Path

from gradpot.train.loop import Watch
from gradpot.train.state import State


def with_board(watch: Watch, out: Path) -> Watch:
    """Call `watch` and, if TensorBoard is installed, write each validation's row for it."""
    if find_spec("tensorboard") is None:
        return watch
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(out / "tensorboard"))

    def both(state: State, done: float, row: dict | None) -> None:
        watch(state, done, row)
        if row:
            scalars = {"train_loss": row["train_loss"], "learning_rate": row["learning_rate"]}
            scalars |= {f"valid/{key}": value for key, value in row["valid"].items()}
            for name, value in scalars.items():
                if value is not None:
                    writer.add_scalar(name, value, row["step"])
            writer.flush()

    return both
