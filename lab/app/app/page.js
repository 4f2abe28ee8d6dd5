import { Clock } from "./clock";

export const dynamic = "force-dynamic";

export default function Home() {
  return (
    <main>
      <h1>AED 픽스</h1>
      <p>자동심장충격기 점검 서비스의 실험실입니다. 장비마다 진행 중인 점검은 하나뿐입니다.</p>
      <Clock />
      <p>
        <code>{process.env.APP_COMMIT.slice(0, 12)}</code>
      </p>
    </main>
  );
}
