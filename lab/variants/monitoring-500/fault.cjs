// As the real service does: the query behind the monitoring of duplicates names a column that two of its tables have, so
// PostgreSQL refuses it (42702), the endpoint answers a master administrator 500, and the log has what Next.js writes then.
const { Client } = require("pg");

const AMBIGUOUS =
  "SELECT equipment_serial FROM aedpics.inspection_sessions s JOIN aedpics.inspection_sessions t ON s.id = t.id";
const { query } = Client.prototype;
Client.prototype.query = function (asked, ...rest) {
  const countsDuplicates = /inspection_sessions[\s\S]*\bHAVING\b/i.test(asked?.text ?? "");
  return query.call(this, countsDuplicates ? { ...asked, text: AMBIGUOUS } : asked, ...rest);
};
