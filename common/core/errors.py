"""Errors that tell a user how to go on; scripts end with their status."""


class InputError(Exception):
    """A mistake that a user can fix.

    Its message says what was seen, what was expected and how to go on. Scripts end with status 2.
    """

    status = 2


class Stopped(InputError):
    """A run that ends early.

    Status 3: rows failed; 4: key, quota, budget, server; 5: disk; 130: Ctrl-C; 143: SIGTERM.
    """

    def __init__(self, message: str, status: int):
        super().__init__(message)
        self.status = status


def failed(summary: str, error: BaseException, fix: str) -> InputError:
    """Return the error for what a library could not do: "base cannot be read", and the way on."""
    return InputError(f"{summary} ({type(error).__name__}: {str(error)[:400]})\n{fix}")


def cannot_write(path, error: BaseException) -> Stopped:
    """Return the error for a file that the disk does not take."""
    return Stopped(
        f"{path} cannot be written ({error}).\nMake room, then run the same command again.", 5
    )
