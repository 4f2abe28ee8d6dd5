"""The type citext in a test's database, whether or not the server came with the extension."""

from __future__ import annotations

from at_most_one.postgres.connection import Connection


def make_citext(connection: Connection, schema: str = "public") -> None:
    """The extension in a schema; without its package a stand-in made of the same parts, as far as tests go."""
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'citext')")
        (available,) = cursor.fetchone() or (False,)
        stand_in = _CITEXT.replace("public.", f"{schema}.")
        cursor.execute(f"CREATE EXTENSION citext SCHEMA {schema}" if available else stand_in)


_CITEXT = """
CREATE TYPE public.citext;
CREATE FUNCTION public.citextin(cstring) RETURNS public.citext LANGUAGE internal STRICT IMMUTABLE AS 'textin';
CREATE FUNCTION public.citextout(public.citext) RETURNS cstring LANGUAGE internal STRICT IMMUTABLE AS 'textout';
CREATE TYPE public.citext (INPUT = public.citextin, OUTPUT = public.citextout, INTERNALLENGTH = VARIABLE,
    STORAGE = extended, CATEGORY = 'S', COLLATABLE = true);
CREATE CAST (public.citext AS text) WITHOUT FUNCTION AS IMPLICIT;
CREATE CAST (text AS public.citext) WITHOUT FUNCTION AS ASSIGNMENT;
CREATE FUNCTION public.citext_eq(public.citext, public.citext) RETURNS boolean LANGUAGE sql IMMUTABLE STRICT
    AS 'SELECT pg_catalog.lower($1::text) OPERATOR(pg_catalog.=) pg_catalog.lower($2::text)';
CREATE FUNCTION public.citext_lt(public.citext, public.citext) RETURNS boolean LANGUAGE sql IMMUTABLE STRICT
    AS 'SELECT pg_catalog.lower($1::text) OPERATOR(pg_catalog.<) pg_catalog.lower($2::text)';
CREATE FUNCTION public.citext_cmp(public.citext, public.citext) RETURNS integer LANGUAGE sql IMMUTABLE STRICT
    AS 'SELECT pg_catalog.bttextcmp(pg_catalog.lower($1::text), pg_catalog.lower($2::text))';
CREATE FUNCTION public.citext_hash_extended(public.citext, bigint) RETURNS bigint LANGUAGE sql IMMUTABLE STRICT
    AS 'SELECT pg_catalog.hashtextextended(pg_catalog.lower($1::text), $2)';
CREATE FUNCTION public.citext_hash(public.citext) RETURNS integer LANGUAGE sql IMMUTABLE STRICT
    AS 'SELECT pg_catalog.hashtext(pg_catalog.lower($1::text))';
CREATE OPERATOR public.= (FUNCTION = public.citext_eq, LEFTARG = public.citext, RIGHTARG = public.citext, HASHES);
CREATE OPERATOR public.< (FUNCTION = public.citext_lt, LEFTARG = public.citext, RIGHTARG = public.citext);
CREATE OPERATOR CLASS public.citext_ops DEFAULT FOR TYPE public.citext USING btree AS
    OPERATOR 1 public.<, OPERATOR 3 public.=, FUNCTION 1 public.citext_cmp(public.citext, public.citext);
CREATE OPERATOR CLASS public.citext_ops DEFAULT FOR TYPE public.citext USING hash AS
    OPERATOR 1 public.=, FUNCTION 1 public.citext_hash(public.citext),
    FUNCTION 2 public.citext_hash_extended(public.citext, bigint);
"""
