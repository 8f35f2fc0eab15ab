import hashlib
import json


def hash_dict(values, defaults):
    """What differs from the defaults, but for metadata, and its hash."""
    told = {k: v for k, v in values.items() if v != defaults.get(k) and k != "metadata"}
    text = json.dumps(told, sort_keys=True)
    return {"hash": hashlib.md5(text.encode()).hexdigest(), "non_default": told}
