"""How long a run is, as a training file says it: steps, tokens or epochs."""

from __future__ import annotations

from olmo_mixlaw.errors import ConfigError


def steps_of(
    duration: int | str, batch_tokens: int, where: str, epoch_steps: int | None = None
) -> int:
    """The steps of a run that `duration` gives as steps (1000), tokens (2e6T) or epochs (1ep).

    `batch_tokens` are those of one step, `epoch_steps` the steps of one epoch, None for a mixture,
    which has none; `where` is the file. Raises `ConfigError` for epochs of a mixture, and for no
    steps at all.
    """
    text = str(duration).strip()
    try:
        if text.endswith("T"):
            steps = -(-int(float(text[:-1])) // batch_tokens)
        elif text.endswith("ep") and epoch_steps is not None:
            steps = int(text[:-2]) * epoch_steps
        elif text.endswith("ep"):
            raise ConfigError(
                f"{where}: max_duration: {text!r} counts epochs, which a mixture doesn't have; "
                "give steps (1000) or tokens (2e6T)"
            )
        else:
            steps = int(float(text))
    except (ValueError, OverflowError):
        epochs = "" if epoch_steps is None else ", nor epochs (1ep)"
        raise ConfigError(
            f"{where}: max_duration: {text!r} is neither steps (1000) nor tokens (2e6T){epochs}"
        ) from None
    if steps < 1:
        raise ConfigError(f"{where}: max_duration: {text!r} leaves no step to train")
    return steps
