"""What the sections of the run file are made of: their base, sizes, limits."""

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from graphsys.core.errors import ConfigError
from graphsys.core.units import parse_bytes


def _parse_size(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return parse_bytes(value)
    except ConfigError as error:
        raise ValueError(str(error)) from error


def _parse_share(value: object) -> object:
    if isinstance(value, str) and value.strip().endswith("%"):
        return value.strip()
    return _parse_size(value)


# The published schema also takes the spellings that the validators turn into bytes.
_SIZE_SCHEMA = {"anyOf": [{"type": "integer", "exclusiveMinimum": 0}, {"type": "string"}], "title": "size"}
_SHARE_SCHEMA = {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string"}], "title": "size or share"}

Size = Annotated[int, BeforeValidator(_parse_size), Field(gt=0), WithJsonSchema(_SIZE_SCHEMA)]
Share = Annotated[int | str, BeforeValidator(_parse_share), WithJsonSchema(_SHARE_SCHEMA)]  # bytes, or "10%"


COUNT_LIMIT = 1 << 31  # counts stay within the 32 bits that windows and kernels use for them
WIDTH_LIMIT = 1 << 16  # a square layer of this width takes 16 GiB


class Section(BaseModel):
    """One section of the run file: frozen, and no key that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False)
