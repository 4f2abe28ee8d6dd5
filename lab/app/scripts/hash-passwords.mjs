// Reads {name: password} as JSON from stdin and prints {name: bcrypt hash}: how user_profiles gets its first people.
import { text } from "node:stream/consumers";
import bcrypt from "bcryptjs";

const passwords = JSON.parse(await text(process.stdin));
const hashed = await Promise.all(Object.entries(passwords).map(async ([name, word]) => [name, await bcrypt.hash(word, 8)]));
console.log(JSON.stringify(Object.fromEntries(hashed)));
