#!/usr/bin/env bash
# A mapped object that was loaded with a loader option (selectinload, load_only, defer ...), pickled
# under SQLAlchemy 2.0 and unpickled under 2.1, or the other way round, raises ModuleNotFoundError: the
# pickle names compiled modules that only one line has. Objects loaded without an option, or with
# lazy="joined" on the mapping, cross both ways.
# Seen: SQLAlchemy 2.0.51 and 2.1.9.
#   2.0 to 2.1: plain ok, option ModuleNotFoundError
#   2.1 to 2.0: plain ok, option ModuleNotFoundError
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for package in SQLAlchemy==2.0.51 SQLAlchemy==2.1.9; do
  version=${package#*==}
  python3 -m venv "$folder/$version"
  "$folder/$version/bin/pip" install --quiet "$package"
done
cd "$folder"
cat > models.py <<'PYTHON'
from sqlalchemy import ForeignKey
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    roles: Mapped[list["Role"]] = relationship()


class Role(Base):
    __tablename__ = "roles"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
PYTHON
cat > write.py <<'PYTHON'
import pickle
import sys

from models import Base, Role, User
from sqlalchemy import create_engine, select
from sqlalchemy.orm import Session, selectinload

engine = create_engine("sqlite://")
Base.metadata.create_all(engine)
with Session(engine) as session:
    session.add(User(id=1, name="ada", roles=[Role(id=1)]))
    session.commit()
for name, options in ("plain", ()), ("option", (selectinload(User.roles),)):
    with Session(engine) as session:
        user = session.scalars(select(User).options(*options)).one()
        len(user.roles)
        with open(f"{sys.argv[1]}-{name}", "wb") as file:
            pickle.dump(user, file)
PYTHON
cat > read.py <<'PYTHON'
import pickle
import sys

import models

seen = []
for name in "plain", "option":
    try:
        with open(f"{sys.argv[1]}-{name}", "rb") as file:
            assert pickle.load(file).name == "ada"
        seen.append(f"{name} ok")
    except ModuleNotFoundError as error:
        seen.append(f"{name} {type(error).__name__}")
print(", ".join(seen))
assert seen == ["plain ok", "option ModuleNotFoundError"], seen
PYTHON
2.0.51/bin/python write.py old
2.1.9/bin/python write.py new
echo "2.0 to 2.1: $(2.1.9/bin/python read.py old)"
echo "2.1 to 2.0: $(2.0.51/bin/python read.py new)"
