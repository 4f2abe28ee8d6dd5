import bcrypt from "bcryptjs";
import { getServerSession } from "next-auth";
import CredentialsProvider from "next-auth/providers/credentials";
import { prisma } from "./prisma";

export const authOptions = {
  session: { strategy: "jwt", maxAge: 8 * 60 * 60 },
  providers: [
    CredentialsProvider({
      name: "이메일",
      credentials: { email: { label: "이메일", type: "email" }, password: { label: "비밀번호", type: "password" } },
      async authorize(credentials) {
        if (!credentials?.email || !credentials.password) return null;
        const user = await prisma().user_profiles.findUnique({ where: { email: credentials.email } });
        if (!user?.is_active || !(await bcrypt.compare(credentials.password, user.password_hash))) return null;
        return { id: user.id, email: user.email, name: user.full_name, role: user.role };
      },
    }),
  ],
  callbacks: {
    jwt: ({ token, user }) => (user ? { ...token, id: user.id, role: user.role } : token),
    session: ({ session, token }) => ({ ...session, user: { ...session.user, id: token.id, role: token.role } }),
  },
};

/** The person behind the session cookie, or null. There is no other way in: a Bearer token is nobody. */
export async function currentUser() {
  const session = await getServerSession(authOptions);
  return session?.user?.id ? session.user : null;
}
