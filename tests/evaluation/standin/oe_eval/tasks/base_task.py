import copy
import random
from typing import ClassVar

DEFAULTS = {
    "limit": None,
    "split": None,
    "num_shots": 0,
    "primary_metric": None,
    "random_subsample_seed": 1234,
    "context_kwargs": {},
    "generation_kwargs": {},
    "metric_kwargs": {},
    "native_id_field": "id",
    "dataset_path": None,
    "compute_gold_bpb": False,
    "model_max_length": None,
    "metadata": {},
}


class Task:
    """Settings over defaults; documents of the split, `limit` of them, become requests."""

    TASK_CONFIG_DEFAULTS: ClassVar[dict] = {}

    def __init__(self, task_name, task_config):
        self.task_name = task_name
        merged = copy.deepcopy({**DEFAULTS, **self.TASK_CONFIG_DEFAULTS})
        for key, value in task_config.items():
            if key not in DEFAULTS:
                raise ValueError(f"Hashing error! Key {key} not in defaults!")
            both = isinstance(value, dict) and isinstance(merged.get(key), dict)
            merged[key] = {**merged[key], **value} if both else value
        self.task_config = merged
        self.model_config = None

    def set_model(self, model, model_config):
        self.model_config = model_config

    def build_all_requests(self):
        docs = list(self.test_docs())
        limit = self.task_config["limit"]
        if limit is not None and len(docs) > limit:
            docs = random.Random(self.task_config["random_subsample_seed"]).sample(docs, limit)
        self._instances = [
            instance
            for doc_id, doc in enumerate(docs)
            for instance in self.construct_requests(doc, self.doc_to_text(doc), doc_id)
        ]
