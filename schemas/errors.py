"""What can go wrong with the contract.

SchemaError
├── DecodeError         bytes that no reader can make sense of
├── EncodeError         a record that its schema does not take
└── CompatibilityError  a schema that older or newer readers could not read
"""


class SchemaError(Exception):
    """Root of this room's errors."""


class DecodeError(SchemaError):
    """The bytes are short, corrupt, of an unknown schema id, or of another record."""


class EncodeError(SchemaError):
    """The record lacks a field, or a value has the wrong type or does not fit 64 bits."""


class CompatibilityError(SchemaError):
    """A committed schema was changed so that some reader or writer would break."""
