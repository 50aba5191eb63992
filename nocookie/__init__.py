"""Sessions for clients that carry no cookies.

The way of a request::

    middleware    SessionMiddleware          a request comes in
      manager       open(environ)
        carriers      find(...)              where did the client put the id?
        ids           checked(text)          could we have issued it? else: no id, no I/O
        sessions      SessionObject          lazy
    local         session                    what the handler imports
        sessions      Session                first touch: load it, or start anew
          stores        load(key)            a record, or why there is none
          codecs        loads(value)         key by key, when a key is read
      manager       commit(session, reply)
          stores        create / save / rotate     only if the handler saved
        carriers      place(id, reply)       only if the client must be told
"""

from nocookie.carriers import AmbiguousId as AmbiguousId
from nocookie.carriers import AskedHeader as AskedHeader
from nocookie.carriers import Bearer as Bearer
from nocookie.carriers import Carrier as Carrier
from nocookie.carriers import Cookie as Cookie
from nocookie.carriers import FirstOf as FirstOf
from nocookie.carriers import Form as Form
from nocookie.carriers import Header as Header
from nocookie.carriers import PathParam as PathParam
from nocookie.carriers import PathSegment as PathSegment
from nocookie.carriers import Query as Query
from nocookie.carriers import Reply as Reply
from nocookie.errors import ConfigError as ConfigError
from nocookie.errors import IdLeak as IdLeak
from nocookie.errors import InsecureTransport as InsecureTransport
from nocookie.errors import NocookieError as NocookieError
from nocookie.errors import NoSession as NoSession
from nocookie.errors import Refusal as Refusal
from nocookie.errors import SessionConflict as SessionConflict
from nocookie.errors import SessionGone as SessionGone
from nocookie.errors import StoreError as StoreError
from nocookie.errors import StoreTimeout as StoreTimeout
from nocookie.errors import TooManyTries as TooManyTries
from nocookie.errors import UnboundSessionError as UnboundSessionError
from nocookie.errors import ValueRefused as ValueRefused
from nocookie.events import Event as Event
from nocookie.farewell import Farewell as Farewell
from nocookie.local import session as session
from nocookie.manager import SessionManager as SessionManager
from nocookie.middleware import SessionMiddleware as SessionMiddleware
from nocookie.owners import SessionInfo as SessionInfo
from nocookie.session_object import SessionObject as SessionObject
from nocookie.sessions import Session as Session

__all__ = [
    "AmbiguousId",
    "AskedHeader",
    "Bearer",
    "Carrier",
    "ConfigError",
    "Cookie",
    "Event",
    "Farewell",
    "FirstOf",
    "Form",
    "Header",
    "IdLeak",
    "InsecureTransport",
    "NoSession",
    "NocookieError",
    "PathParam",
    "PathSegment",
    "Query",
    "Refusal",
    "Reply",
    "Session",
    "SessionConflict",
    "SessionGone",
    "SessionInfo",
    "SessionManager",
    "SessionMiddleware",
    "SessionObject",
    "StoreError",
    "StoreTimeout",
    "TooManyTries",
    "UnboundSessionError",
    "ValueRefused",
    "session",
]
