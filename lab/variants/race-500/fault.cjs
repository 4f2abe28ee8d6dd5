// As the real service does: the application does not recognise the unique violation, so whoever loses a race for a session
// gets 500 instead of 409. The index is at work all the same.
const { Client } = require("pg");

function hide(failure) {
  if (failure?.code === "23505") failure.code = "XX000";
}

const { query } = Client.prototype;
Client.prototype.query = function (...given) {
  const callback = given.at(-1);
  if (typeof callback !== "function") {
    const answer = query.apply(this, given);
    if (answer?.catch) answer.catch(hide); // before whoever waits for the answer sees it
    return answer;
  }
  return query.call(this, ...given.slice(0, -1), (failure, ...rest) => {
    hide(failure);
    callback(failure, ...rest);
  });
};
