"""Adds our tasks to OLMES and our datasets to OLMo's trainer when, and only when, they load.

Python imports this file at every start, so it imports nothing, does its work in microseconds
and lets no error of ours reach the host. `OLMO_MIXLAW_NO_HOOK=1` switches it off.
"""

import sys

OFF = "OLMO_MIXLAW_NO_HOOK"

# Module of a host -> what is called with it once it has loaded.
AFTER = {
    "oe_eval.configs.tasks": ("olmo_mixlaw.plugin", "extend_olmes"),
    "oe_eval.configs.task_suites": ("olmo_mixlaw.plugin", "extend_olmes"),
    "oe_eval.tasks.fewshot_sources": ("olmo_mixlaw.plugin", "extend_olmes"),
    "oe_eval.tasks.oe_eval_tasks": ("olmo_mixlaw.plugin", "extend_olmes"),
    "olmo.data": ("olmo_mixlaw.training.hook", "wrap_olmo_data"),
}


class AfterImport:
    """A finder that finds nothing itself: it has the real loader call us after the module."""

    def __init__(self):
        self.searching = set()

    def find_spec(self, name, path=None, target=None):
        if name not in AFTER or name in self.searching:
            return None
        self.searching.add(name)
        try:
            spec = self.real_spec(name, path, target)
        finally:
            self.searching.discard(name)
        if spec is not None and hasattr(spec.loader, "exec_module"):
            # The loader stays the same object, so that inspect and resources work as ever.
            execute = spec.loader.exec_module

            def execute_then_extend(module):
                execute(module)
                extend(module)

            try:
                spec.loader.exec_module = execute_then_extend
            except AttributeError as error:
                complain(name, error)
        return spec

    def real_spec(self, name, path, target):
        for finder in sys.meta_path:
            if finder is not self and hasattr(finder, "find_spec"):
                spec = finder.find_spec(name, path, target)
                if spec is not None:
                    return spec
        return None


def extend(module):
    """Call what `AFTER` names with the loaded module, whatever may be wrong with us."""
    where, function = AFTER[module.__name__]
    try:
        __import__(where)
        getattr(sys.modules[where], function)(module)
    except Exception as error:
        complain(module.__name__, error)


def complain(name, error):
    try:
        text = f"olmo-mixlaw: {name} is left as it is ({type(error).__name__}: {error})\n"
        sys.stderr.write(text)
    except Exception:  # closed, full or None: nobody listens, and the host goes on
        pass


def install():
    """Begin to watch imports, once. Called by the start-up file."""
    try:
        import os  # loaded long before any start-up file

        if os.environ.get(OFF) or any(type(f).__name__ == "AfterImport" for f in sys.meta_path):
            return
        sys.meta_path.insert(0, AfterImport())
        for name in AFTER:
            if name in sys.modules:
                extend(sys.modules[name])
    except Exception as error:
        complain("start-up", error)
