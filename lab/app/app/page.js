import Link from "next/link";
import { Clock } from "./clock";
import { Help } from "./help";

export const dynamic = "force-dynamic";

export default function Home() {
  return (
    <main>
      <h1>AED 픽스</h1>
      <p>자동심장충격기 점검 서비스의 실험실입니다. 장비마다 진행 중인 점검은 하나뿐입니다.</p>
      <Clock />
      <Help />
      <p>
        <Link href="/about" prefetch={false}>
          이 실험실에 대하여
        </Link>
      </p>
      <p>
        <code>{process.env.APP_COMMIT.slice(0, 12)}</code>
      </p>
    </main>
  );
}
