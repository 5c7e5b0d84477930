"""What both model loaders share: from a name to the weights, with the host's progress bar and its interrupt; the checks
before a prompt runs; calling a host that is older or newer."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import comfy.model_management
import comfy.utils

from ...loaders.errors import LoadCancelledError
from ...loaders.progress import LoadProgress
from ..runtime import get_runtime
from ..server.off_loop import ask_disk
from .linked_names import LinkedNames
from .model_files import ModelFileError, ModelFiles
from .model_weights import LinkedModel, ModelWeights, check_weights, read_weights, weights_state


def load_by_host(
    kind: str, detect: Callable[..., Any], choice: tuple[str, str, str], **options: object
) -> tuple[Any, str]:
    """What `detect`, a function of the host's, makes of the weights, and one line about how they were loaded.

    `choice` is (name, path, strategy). Raises ModelFileError where the host sees no `kind` in the file.
    """
    weights = _load_weights(*choice)
    found = call_host(detect, weights.tensors, metadata=weights.metadata, **options)
    if found is None:
        raise _not_a_model(choice[0], kind)
    return found, weights.report


async def verdict(files: ModelFiles, name: str | None, strategy: str | None) -> bool | str:
    """True, or one line that says what is wrong with the file or why the strategy cannot load it. In a thread: a
    validation happens on the server's loop. None is an input that a link fills: it passes."""
    return True if name is None else await ask_disk(_verdict, files, name, strategy or "auto")


def state(files: ModelFiles, linked: LinkedNames[LinkedModel], name: str | None) -> str:
    """Changes whenever the model's files do. A name that comes over a link is None here: then whenever the files of a
    model do that was loaded before, of those that `linked` knows."""
    if name is None:
        return str(linked.changes())
    try:
        return repr(weights_state(files.find(name)))
    except ModelFileError as problem:
        return str(problem)


def call_host(function: Callable[..., Any], *arguments: object, **options: object) -> Any:
    """`function`, with those `options` that this version of the host knows."""
    known = inspect.signature(function).parameters
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values()):
        # Otherwise it hides what it knows, as a wrapper of another pack's does: without its options a model is another.
        options = {name: value for name, value in options.items() if name in known}
    return function(*arguments, **options)


def _load_weights(name: str, path: str, strategy: str) -> ModelWeights:
    """The weights of the model, unless the user interrupts."""
    bar = _Bar()
    try:
        weights = read_weights(name, path, strategy, bar.show, bar.interrupted)
    except LoadCancelledError as error:
        raise comfy.model_management.InterruptProcessingException from error
    if bar.interrupted():
        # It came with the last chunk.
        raise comfy.model_management.InterruptProcessingException
    get_runtime().loads.record(weights.metrics)
    return weights


def _not_a_model(name: str, kind: str) -> ModelFileError:
    hint = "; LoRA files belong into the loras folder" if "lora" in name.lower() else ""
    return ModelFileError(name, f"ComfyUI does not recognise a {kind} in these weights{hint}")


def _verdict(files: ModelFiles, name: str, strategy: str) -> bool | str:
    try:
        check_weights(name, files.find(name), strategy)
    except ModelFileError as problem:
        return str(problem)
    return True


def _node_id() -> str | None:
    """The node that runs in this thread; None outside of a prompt, and in a host that does not tell."""
    try:
        from comfy_execution.utils import get_executing_context
    except ImportError:
        return None
    context = get_executing_context()
    return None if context is None else context.node_id


class _Bar:
    """The host's progress bar, moved from reading threads."""

    def __init__(self) -> None:
        # In a reading thread the host knows no node, and would open a record for none that nothing ever finishes.
        self._bar = call_host(comfy.utils.ProgressBar, 1, node_id=_node_id())
        self._interrupted = False

    def show(self, progress: LoadProgress) -> None:
        try:
            self._bar.update_absolute(progress.done_bytes, progress.total_bytes)
        except comfy.model_management.InterruptProcessingException:
            # The bar takes the interrupt and forgets it; raised in a reading thread it would end that thread alone.
            self._interrupted = True

    def interrupted(self) -> bool:
        return self._interrupted or bool(comfy.model_management.processing_interrupted())
