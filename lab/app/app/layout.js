import "./globals.css";

export const metadata = { title: "AED 픽스", description: "자동심장충격기 점검 서비스 (실험실)" };

export default function RootLayout({ children }) {
  return (
    <html lang="ko">
      <body>{children}</body>
    </html>
  );
}
