"""The errors of irene-build and of the estimators that it exports.

    IreneError
    ├── InputError               the caller gave something wrong (exit code 2)
    │   ├── TreeError            a model tree file or object that is not one
    │   ├── EstimatorError       an estimator, bundle or manifest that is not one, or is not ours
    │   ├── DatasetError         a dataset or table that cannot be read
    │   ├── ModelError           an unknown architecture, or a module that cannot be built or traced
    │   ├── HardwareError        an unknown hardware profile, or hardware that is not here
    │   └── OutputError          a file or folder that cannot be written (exit code 1 where the disk failed)
    └── RunError                 the input was fine and the work failed (exit code 1)
        ├── MeterError           a meter stopped, or never answered
        ├── MeasurementError     a campaign could not finish
        └── ParityError          two backends disagree about the same estimator

Every message says what happened, where, and what to do.
"""


class IreneError(Exception):
    """Base of every error raised on purpose. ``exit_code`` is what a command line exits with."""

    exit_code = 1


class InputError(IreneError):
    """The caller's input is wrong; nothing was written."""

    exit_code = 2


class TreeError(InputError):
    """A model tree that does not follow the schema; the message names the node and the field."""


class EstimatorError(InputError):
    """An estimator, bundle or manifest that does not follow its schema."""


class DatasetError(InputError):  # build tool only
    """A dataset that cannot be read; the message names the file and the line."""


class ModelError(InputError):  # build tool only
    """An architecture that is unknown, cannot be built or cannot be traced."""


class HardwareError(InputError):
    """A hardware profile that is unknown, or hardware that is not in this machine."""


class OutputError(InputError):  # build tool only
    """A file or folder cannot be written there; what stood there before is unchanged."""


class RunError(IreneError):
    """The input was fine and the work failed."""


class MeterError(RunError):  # build tool only
    """An energy source stopped answering or answers nonsense."""


class MeasurementError(RunError):  # build tool only
    """A measuring campaign could not be finished; what it finished is in its journal."""


class ParityError(RunError):  # build tool only
    """Two backends give different numbers for one estimator; nothing was exported."""
