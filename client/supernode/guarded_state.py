"""What a SuperNode keeps of runs: an app that it is handed is looked at before it is stored."""

from __future__ import annotations

import logging

from flwr.supercore.fab import Fab
from flwr.supercore.object_store import ObjectStore
from flwr.supercore.run import Run, RunNotRunningException
from flwr.supernode.nodestate import InMemoryNodeState, NodeState, NodeStateFactory

from fedmunkey.client.supernode.installed_app import check_app
from fedmunkey.common.errors import InvalidSetting

logger = logging.getLogger(__name__)


class _GuardedState(InMemoryNodeState):
    """A SuperNode's state that keeps no app with code in it, and no run of such an app."""

    def __init__(self, object_store: ObjectStore) -> None:
        super().__init__(object_store)
        self._unchecked: Run | None = None

    def store_run(self, run: Run) -> None:
        """Hold a run back until its app has come."""
        # Flower asks for the app of a run that it does not know, and stores that after the run.
        self._unchecked = run

    def store_fab(self, fab: Fab) -> str:
        """Keep the app of a run, and the run that was held back for it; raises if there is more in it than settings."""
        try:
            check_app(fab.content)
        except InvalidSetting as error:
            logger.error("%s; the run is ignored", error)
            # Flower leaves out the messages of a run that is over, and goes on.
            raise RunNotRunningException from None
        if self._unchecked is not None:
            super().store_run(self._unchecked)
        return super().store_fab(fab)


class GuardedStateFactory(NodeStateFactory):
    """Gives a SuperNode a state that keeps no app with code in it."""

    def state(self) -> NodeState:
        """Return the one state."""
        with self.lock:
            if self.state_instance is None:
                self.state_instance = _GuardedState(self.objectstore_factory.store())
            return self.state_instance
