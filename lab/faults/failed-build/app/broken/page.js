// The fault: `next build` stops here, a module that does not exist.
import { nothing } from "@/lib/does-not-exist";

export default function Broken() {
  return <p>{nothing}</p>;
}
