export const dynamic = "force-dynamic";

export default function About() {
  return (
    <main>
      <h1>이 실험실에 대하여</h1>
      <p>
        <code>{process.env.APP_COMMIT.slice(0, 12)}</code>
      </p>
    </main>
  );
}
