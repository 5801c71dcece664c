"""A folder for the Hugging Face Hub, pushed there with the Hub's own library, which is imported when it is."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from lightning_trt_windows.artifact.files import readable_size
from lightning_trt_windows.bundle.huggingface import HubFolder
from lightning_trt_windows.bundle.model_card import CARD, hub_library
from lightning_trt_windows.errors import ConfigurationError, OutputError

__all__ = ["HubTarget", "hub_target", "push_to_hub"]


@dataclass(frozen=True)
class HubTarget:
    """A model on the Hub, as it is before a push."""

    name: str
    """``USER/MODEL``."""
    url: str
    private: bool
    """Whether it is private, or will be when it is made."""
    exists: bool

    def question(self, folder: HubFolder) -> str:
        """What a person is asked before ``folder`` is pushed."""
        size = sum((folder.path / name).stat().st_size for name in folder.files)
        kind = "private" if self.private else "public"
        which = f"the {kind} model" if self.exists else f"a new {kind} model"
        if not self.exists and not self.private:
            which += ", unless its owner makes new ones private"
        return f"Push {len(folder.files)} files ({readable_size(size)}) to {self.url}, {which}?"


def hub_target(name: str, *, private: bool = False) -> HubTarget:
    """Ask the Hub about a model.

    Args:
        name: ``USER/MODEL``.
        private: Whether it is made private, if it is made.

    Returns:
        What the Hub says of it.

    Raises:
        ConfigurationError: The Hub takes no model of this name, or the model is there and public, and ``private`` is
            wanted.
        EnvironmentMismatchError: ``huggingface_hub`` is not installed.
        OutputError: The Hub cannot be reached, or refuses.
    """
    hub = hub_library()
    _check_name(name)
    with _hub_errors(name):
        api = hub.HfApi()
        url = f"{api.endpoint}/{name}"
        try:
            found = api.model_info(name)
        except hub.errors.RepositoryNotFoundError:
            return HubTarget(name, url, private, exists=False)
    if private and not found.private:
        raise ConfigurationError(
            f"{url} is there and public; a push does not change that: make it private in its settings, or name another"
        )
    return HubTarget(name, url, bool(found.private), exists=True)


def push_to_hub(folder: HubFolder, target: HubTarget, *, message: str = "TensorRT engines for Windows") -> str:
    """Push the files of ``folder`` to the Hub, in one commit; what else is in the folder stays here.

    The Hub checks the card first. The model is made where it is not there; files that it has already and that are not
    in ``folder`` stay.

    Args:
        folder: What ``collect_for_hub`` wrote.
        target: Where, as ``hub_target`` found it.
        message: Of the commit.

    Returns:
        The address of the commit.

    Raises:
        ConfigurationError: The Hub does not take the card.
        OutputError: The Hub cannot be reached, or refuses.
    """
    hub = hub_library()
    _check_card(folder, target)
    with _hub_errors(target.name):
        api = hub.HfApi()
        if not target.exists:
            # an organization may make new models private by itself: left to it unless private was asked for
            api.create_repo(target.name, private=target.private or None, exist_ok=True)
        operations = [hub.CommitOperationAdd(name, str(folder.path / name)) for name in folder.files]
        commit = api.create_commit(target.name, operations, commit_message=message)
    return str(commit.commit_url)


def _check_name(name: str) -> None:
    try:
        importlib.import_module("huggingface_hub.utils").validate_repo_id(name)
    except ValueError as error:
        raise ConfigurationError(f"{name!r} is not the name of a model on the Hub: {error}") from error
    if "/" not in name:
        raise ConfigurationError(f"{name!r} has no owner; name the model USER/{name} or ORGANISATION/{name}")


def _check_card(folder: HubFolder, target: HubTarget) -> None:
    with _hub_errors(target.name):
        try:
            hub_library().ModelCard.load(folder.path / CARD).validate()
        except ValueError as error:
            raise ConfigurationError(f"the Hub does not take the card {folder.path / CARD}: {error}") from error


@contextmanager
def _hub_errors(name: str) -> Iterator[None]:
    """Errors of ours in the place of those of the library and of what carries its requests."""
    try:
        yield
    except (ConfigurationError, OutputError):
        raise
    except Exception as error:  # the library, its HTTP client and its upload threads have a dozen bases between them
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403):
            way = "log in with `hf auth login`, or set HF_TOKEN to a token that may write there"
        else:
            way = "try again; `hf upload` pushes the same folder"
        reason = str(error).strip().splitlines()
        raise OutputError(
            f"{name} cannot be pushed to the Hub: {reason[0] if reason else type(error).__name__}; {way}"
        ) from error
