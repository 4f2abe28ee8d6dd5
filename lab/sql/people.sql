-- Three people: a master administrator and two inspectors. Their password hashes are made when the lab is.
INSERT INTO aedpics.user_profiles (id, email, full_name, role, password_hash, created_at)
VALUES
    ('00000000-0000-4000-8000-000000000001', %(admin_email)s, '마스터 관리자', 'master', %(admin_hash)s, '2025-01-01 00:00:00+00'),
    ('00000000-0000-4000-8000-000000000002', %(inspector_email)s, '홍길동', 'inspector', %(inspector_hash)s, '2025-01-01 00:00:00+00'),
    ('00000000-0000-4000-8000-000000000003', %(other_email)s, '김점검', 'inspector', %(other_hash)s, '2025-01-01 00:00:00+00');
