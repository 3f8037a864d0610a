"""Errors that a user can mend: what was got, what was expected, how to mend it."""


class CrossalignError(Exception):
    """Base of every error that crossalign raises on purpose; the command line prints it and exits with 2."""


class InputError(CrossalignError, ValueError):
    """A value or a file is not what was asked for."""


class SettingError(InputError):
    """A setting is not what it must be: `setting` is its name, `problem` what is wrong with it."""

    def __init__(self, setting: str, problem: str) -> None:
        super().__init__(f"'{setting}' {problem}")
        self.setting, self.problem = setting, problem


class ImageError(InputError):
    """An image cannot be used: unreadable, of the wrong dimension, too large, constant, or not finite."""


class TransformError(InputError):
    """A transform cannot be used: unreadable, or not rigid."""


class ManifestError(InputError):
    """A manifest has a fault; the message names its row and column."""


class WeightsError(InputError):
    """A weight file cannot be used: unreadable, of another network, or damaged."""


class OverlapError(InputError):
    """The start leaves no overlap between the fixed and the moving image."""


class OutputError(CrossalignError, OSError):
    """An output cannot be written, or would overwrite something of the user's."""


class InputWarning(UserWarning):
    """Something about an input that was read all the same: a header that contradicts itself, a matrix that was rounded.

    The readers issue it through `warnings.warn`; the command line prints it, and `register` and `fuse` put those of
    their inputs among the warnings of the result (cli.checks.collected).
    """
