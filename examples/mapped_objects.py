"""SQLAlchemy objects in a session: taken along between requests, and merged back to be changed.

    python examples/mapped_objects.py
    curl -i -X POST 'http://127.0.0.1:8000/choose?id=1'         # answers X-Session-Id: ...
    curl -H 'X-Session-Id: ...' http://127.0.0.1:8000/          # asks no database
    curl -H 'X-Session-Id: ...' -X POST 'http://127.0.0.1:8000/move?city=Turin'

The object in the session is a copy of a row. `merge` brings it into a unit of work again; the
version column keeps an old copy from overwriting what others have changed since.
"""

import os
import secrets
from wsgiref.simple_server import make_server

from sqlalchemy import ForeignKey, create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship, sessionmaker
from sqlalchemy.orm.exc import StaleDataError
from sqlalchemy.pool import StaticPool
from webob import Response
from webob.dec import wsgify
from webob.exc import HTTPConflict, HTTPGone, HTTPNotFound

from nocookie import SessionMiddleware, session


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    addresses: Mapped[list["Address"]] = relationship(back_populates="user")


class Address(Base):
    __tablename__ = "addresses"

    id: Mapped[int] = mapped_column(primary_key=True)
    city: Mapped[str]
    version: Mapped[int] = mapped_column()
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    user: Mapped[User] = relationship(back_populates="addresses", lazy="joined")

    __mapper_args__ = {"version_id_col": version}  # noqa: RUF012 - as SQLAlchemy has it


engine = create_engine("sqlite://", poolclass=StaticPool)  # one connection: it is the database
# What is put into the session must not lose its values at the commit.
DBSession = sessionmaker(engine, expire_on_commit=False)


def choose(request):
    with DBSession() as db:
        address = db.get(Address, request.GET["id"])
    if address is None:
        raise HTTPNotFound()
    session["address"] = address
    session.save()
    return show(request)


def show(request):
    """Reads what was taken along, relationship and all. The database is not asked."""
    if "address" not in session:
        raise HTTPNotFound()
    address = session["address"]
    return Response(f"{address.user.name}, {address.city}\n", content_type="text/plain")


def move(request):
    with DBSession() as db:
        if "address" not in session:
            raise HTTPNotFound()
        if db.get(Address, session["address"].id) is None:
            # merge would make the row anew, because to it the object is one that is not there yet.
            del session["address"]
            session.save()
            return HTTPGone("The address was deleted.")
        try:
            address = db.merge(session["address"])
        except StaleDataError:
            return HTTPConflict("Somebody changed the address. Choose it again.")
        address.city = request.GET["city"]
        db.commit()
    session["address"] = address
    session.save()
    return show(request)


HANDLERS = {("POST", "/choose"): choose, ("GET", "/"): show, ("POST", "/move"): move}


@wsgify
def application(request):
    handler = HANDLERS.get((request.method, request.path_info))
    return handler(request) if handler else HTTPNotFound()


application = SessionMiddleware(
    application,
    use_cookies=False,
    data_serializer="pickle",
    secret=os.environ.get("SECRET") or secrets.token_urlsafe(32),
)

Base.metadata.create_all(engine)
with DBSession.begin() as db:
    db.add(User(name="Ada", addresses=[Address(city="London"), Address(city="Ockham")]))


if __name__ == "__main__":
    with make_server("127.0.0.1", int(os.environ.get("PORT", "8000")), application) as server:
        print(f"http://127.0.0.1:{server.server_port}/", flush=True)
        server.serve_forever()
