from oe_eval.tasks.base_task import DEFAULTS

TASK_DEFAULTS = dict(DEFAULTS)
