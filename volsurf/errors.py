"""The exceptions volsurf raises.

    VolsurfError
    ├── InputError (also a ValueError)     an argument, a file or a table the caller handed in is wrong
    │   └── ConfigError                    a flag, environment variable or configuration file is wrong
    ├── NotReadyError                      asked for something that does not exist yet: no frame, no such underlying
    ├── FeedError                          an exchange connection cannot go on by itself
    │   └── ProtocolError                  the venue refused a request or spoke something else than its protocol
    ├── ReplayError                        a capture cannot be played back exactly as it was recorded
    ├── StreamError                        the engine's native stream sent bytes that do not decode or do not hash
    └── EngineError                        an engine process could not be started, reached or stopped

Bad market data is not an exception: it is a counted, named reason beside the row it concerns.
"""

from __future__ import annotations


class VolsurfError(Exception):
    """Base of every exception volsurf raises on purpose."""


class InputError(VolsurfError, ValueError):
    """An argument, file or table is wrong; the message names the value and what would be right."""


class ConfigError(InputError):
    """A flag, environment variable or configuration file holds a value that cannot be used."""


class NotReadyError(VolsurfError):
    """Asked for a frame or surface before there is one, or for an underlying nobody subscribed."""


class FeedError(VolsurfError):
    """An exchange connection ended in a way that reconnecting will not mend."""


class ProtocolError(FeedError):
    """The venue refused a request, or what answered is not the venue."""


class ReplayError(VolsurfError):
    """A capture cannot be played back exactly: something of it is missing, or what is made again is not what was recorded."""


class StreamError(VolsurfError):
    """Bytes of the engine's stream that do not decode, or decode to another state than their hash says."""


class EngineError(VolsurfError):
    """An engine process could not be started, reached or stopped."""
