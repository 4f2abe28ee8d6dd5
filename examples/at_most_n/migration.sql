-- At most three open sessions per user, the first half: each open session gets a slot from 1 to 3, a closed one none.
-- The second half is the plan three-open-sessions, whose unique index lets each slot be taken once (docs/at-most-n.md).
-- The number stands in three places: twice as 3 in the functions, once in the CHECK.
SET lock_timeout = '3s'; -- what waits for a lock makes everybody behind it wait

ALTER TABLE public.sessions ADD COLUMN slot smallint;

CREATE FUNCTION public.choose_session_slot() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.status <> 'open' THEN
        NEW.slot := NULL; -- free for the next one
        RETURN NEW;
    END IF;
    IF TG_OP = 'UPDATE' THEN
        IF NEW.user_id <> OLD.user_id AND NEW.slot = OLD.slot THEN
            NEW.slot := NULL; -- it was a slot of the other user
        END IF;
    END IF;
    IF NEW.slot IS NULL THEN -- one that is given stays: a row that is restored keeps its own
        -- Who comes second waits here until the first has committed, and then sees which slot that one has.
        PERFORM pg_advisory_xact_lock(hashtextextended('public.sessions ' || NEW.user_id, 0));
        NEW.slot := coalesce((
            SELECT min(free.slot) FROM generate_series(1, 3) AS free (slot)
            WHERE NOT EXISTS (
                SELECT FROM public.sessions AS taken
                WHERE taken.user_id = NEW.user_id AND taken.status = 'open' AND taken.slot = free.slot
                    AND taken.id <> NEW.id)), 3); -- all are taken: the index refuses the row, once it is there
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER choose_session_slot BEFORE INSERT OR UPDATE OF user_id, status, slot ON public.sessions
    FOR EACH ROW EXECUTE FUNCTION public.choose_session_slot();

-- Gives slots 1 and 2 to the best two sessions of a user, and slot 3 to the third and to all that are too many, in the
-- order of the plan's `keep`, then by the primary key: so of slot 3 the plan keeps the third. Changes only users with a
-- session without a slot or with a slot that is taken twice, so that it finds nothing to do once the index is there.
CREATE FUNCTION public.fill_session_slots() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    changed bigint;
BEGIN
    LOCK TABLE public.sessions IN SHARE ROW EXCLUSIVE MODE; -- nobody opens a session meanwhile; readers do not wait
    UPDATE public.sessions AS filled SET slot = ranked.slot
    FROM (
        SELECT id, least(row_number() OVER (PARTITION BY user_id ORDER BY opened_at DESC NULLS LAST, id), 3) AS slot
        FROM public.sessions
        WHERE status = 'open' AND user_id IN (
            SELECT user_id FROM public.sessions WHERE status = 'open'
            GROUP BY user_id HAVING count(*) <> count(DISTINCT slot))
    ) AS ranked
    WHERE filled.id = ranked.id AND filled.slot IS DISTINCT FROM ranked.slot;
    GET DIAGNOSTICS changed = ROW_COUNT;
    RETURN changed;
END
$$;

SELECT public.fill_session_slots();

-- An open session without a slot would be outside the index: a NULL is equal to nothing.
ALTER TABLE public.sessions ADD CONSTRAINT open_session_has_a_slot CHECK (
    CASE WHEN status = 'open' THEN slot IS NOT NULL AND slot BETWEEN 1 AND 3 ELSE slot IS NULL END) NOT VALID;
ALTER TABLE public.sessions VALIDATE CONSTRAINT open_session_has_a_slot;
