const UNIQUE_VIOLATION = "23505";

/** True when PostgreSQL refused a second open session, whichever way Prisma and its driver adapter wrap that answer. */
export function isUniqueViolation(failure) {
  for (let error = failure; error; error = error.cause) {
    if (error.code === "P2002" || error.code === UNIQUE_VIOLATION) return true;
    if (error.originalCode === UNIQUE_VIOLATION || error.kind === "UniqueConstraintViolation") return true;
    if (error.meta?.code === UNIQUE_VIOLATION) return true;
  }
  return false;
}
