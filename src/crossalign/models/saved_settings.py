"""Settings dataclasses from JSON: see crossalign.fields."""

from crossalign.fields import settings_of  # noqa: F401
