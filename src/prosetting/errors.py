"""Every error that a user can meet: one root, one class for each boundary.

Each carries the exit code of the command line and `next_step`, the thing to type or change now.
A failure of one *item* (an attempt that the teacher cannot grade) is data, not an exception.
"""

from __future__ import annotations

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_STOPPED = 3
EXIT_WORKSPACE_IN_USE = 4
EXIT_TEACHER_UNAVAILABLE = 5
EXIT_PAUSED = 6
EXIT_INTERRUPTED = 130


class ProSettingError(Exception):
    """Root of all errors that are told to the user in one message, without a traceback."""

    exit_code = EXIT_FAILED

    def __init__(self, what: str, *, next_step: str) -> None:
        super().__init__(what)
        self.what = what
        self.next_step = next_step

    def __str__(self) -> str:
        return f"{self.what}\n  → {self.next_step}"


class ConfigError(ProSettingError):
    """A setting, a flag or a path that cannot hold. Raised before anything is spent."""

    exit_code = EXIT_USAGE


class DataError(ProSettingError):
    """A question file or a recorded file that does not read as what it should be."""

    exit_code = EXIT_USAGE


class WorkspaceError(ProSettingError):
    """The workspace cannot be used: not writable, made with other settings, of another version."""

    exit_code = EXIT_USAGE


class WorkspaceInUse(ProSettingError):
    """Another live run holds the workspace."""

    exit_code = EXIT_WORKSPACE_IN_USE


class TeacherUnavailable(ProSettingError):
    """The teacher as a whole does not answer (refused, wrong key, unknown model). The run may try again later."""

    exit_code = EXIT_TEACHER_UNAVAILABLE


class GpuError(ProSettingError):
    """A GPU that is taken, gone, or not given back."""


class SolverError(ProSettingError):
    """The sampling child ended without doing its work."""


class TrainingError(ProSettingError):
    """The training child ended without a checkpoint."""


class RunStopped(ProSettingError):
    """The run was asked to stop; everything committed stays and the run can be resumed."""

    exit_code = EXIT_STOPPED


class RunPaused(ProSettingError):
    """The run holds because a person must look: a budget is spent, or the judge failed a known answer.

    Trying again by itself would not help; everything committed stays, and the same command goes on.
    """

    exit_code = EXIT_PAUSED


class TeacherReplyError(Exception):
    """One reply of a teacher that is not what was asked for: the item stays `unknown`.

    Not a `ProSettingError`: it never reaches the user by itself.
    """
