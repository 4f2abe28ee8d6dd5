-- At most three open sessions per user, the second half. A run of the plan has removed what was too many.
CREATE UNIQUE INDEX three_open_sessions ON public.sessions (user_id, slot) WHERE status = 'open';
