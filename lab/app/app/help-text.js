export const text = "장비를 고르고 점검을 시작하세요.";
