"""Prisma's migration files, its command line and its history."""
