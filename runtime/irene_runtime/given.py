"""Trees as a caller gives them: as such, as a dict, as JSON text; at a size, or as a step over requests."""

from typing import Any, Mapping, Union

from .errors import InputError, TreeError
from .ragged import Step
from .symbolic import SymbolicTree, any_tree
from .tree import ModelTree, loads


def _tree(given: Any) -> Union[ModelTree, SymbolicTree]:
    """A tree that was given as such, as a dict, or as JSON text. Raises InputError."""
    if isinstance(given, (ModelTree, SymbolicTree)):
        return given
    if isinstance(given, Mapping):
        return any_tree(given)
    try:
        text = bytes(given).decode("utf-8") if isinstance(given, (bytes, bytearray)) else given
    except UnicodeDecodeError as error:
        raise TreeError("the tree is not UTF-8 text (byte %d)" % error.start) from None
    if isinstance(text, str) and text.lstrip()[:1] == "{":
        return loads(text, any_tree)  # type: ignore[no-any-return]
    what = "%.80r, a text that is no JSON" % text if isinstance(text, str) else type(given).__name__
    raise InputError("predict wants a tree, as load_tree(path) gives it, a dict or JSON text, not %s" % what)


def _sized(given: Any, *size: Any) -> ModelTree:
    """The tree of one size: of a symbolic one the size that is asked for. Raises InputError."""
    tree = _tree(given)
    if isinstance(tree, SymbolicTree):
        return tree.at(*size)
    if size != (None, None, 0, None):
        raise InputError(
            "batch_size, seq_len, past_len and phase are for symbolic trees: this one has its own"
        )
    return tree


def _step(given: Any, requests: Any, *size: Any) -> Step:
    """A ragged step of a symbolic tree. Raises InputError."""
    tree = _tree(given)
    if size != (None, None, 0, None):
        raise InputError(
            "requests have their own sizes: give no batch_size, seq_len, past_len or phase beside them"
        )
    if not isinstance(tree, SymbolicTree):
        raise InputError("requests are for symbolic trees: this one has a size of its own")
    return Step(tree, requests)
