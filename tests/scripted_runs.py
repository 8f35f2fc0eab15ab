"""An executor that starts nothing: each run ends as a script says it does."""

import json

from olmo_mixlaw.study.executor import Ended
from olmo_mixlaw.study.failures import DONE, leave_word
from olmo_mixlaw.study.plan import Run


class Rung:
    name = "w16"
    step_flops = 1e7


def runs_of(folder, count=3, steps=10):
    """So many runs, and their folders with a configuration in each."""
    runs, folders = [], {}
    for i in range(count):
        name = f"r{i}"
        runs.append(Run(name, Rung(), "m", {"a": 1.0}, 100, steps, 1))
        folders[name] = folder / "runs" / name
        folders[name].mkdir(parents=True, exist_ok=True)
        (folders[name] / "config.yaml").write_text(f"run_name: {name}\n")
    return runs, folders


class Scripted:
    """`ends` gives a run's ends in turn: `done`, an `Ended`, or the kind and text that it leaves.

    What is not scripted is `done`. A checkpoint of step n is left before an end (n, end).
    """

    pause = 0.0

    def __init__(self, ends=None, at_once=2, under_way=()):
        self.at_once = at_once
        self.ends = {name: list(each) for name, each in (ends or {}).items()}
        self.under_way = list(under_way)
        self.submitted, self.left = [], []
        self.most = 0
        self.closed = False
        self._folders = {}

    def adopt(self, runs, is_ours):
        names = [run.run_id for run in runs if run.run_id in self.under_way]
        return [name for name in names if is_ours(name)]

    def room(self):
        return self.at_once - len(self.under_way)

    def submit(self, runs, folders):
        self._folders = folders
        names = [run.run_id for run in runs]
        self.submitted += names
        self.under_way += names
        self.most = max(self.most, len(self.under_way))
        return names

    def poll(self):
        name = self.under_way.pop(0)
        end = self.ends[name].pop(0) if self.ends.get(name) else "done"
        folder = self._folders[name]
        if isinstance(end, tuple) and isinstance(end[0], int):
            step, end = end
            (folder / "checkpoints" / f"step{step}-unsharded").mkdir(parents=True)
        if end == "done":
            said = {"seconds": {"train": 1.0, "evaluate": 1.0}}
            (folder / DONE).write_text(json.dumps(said))
            return [Ended(name, 0)]
        if isinstance(end, Ended):
            return [Ended(name, end.code, end.state)]
        leave_word(folder, *end)
        return [Ended(name, 1)]

    def leave(self, run_id):
        self.under_way.remove(run_id)
        self.left.append(run_id)

    def close(self):
        self.closed = True
