"""The table."""

from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    dependencies = []
    operations = [
        migrations.CreateModel(
            name="Enrolment",
            fields=[
                ("id", models.BigAutoField(primary_key=True)),
                ("user_id", models.IntegerField()),
                ("course_id", models.IntegerField()),
                ("status", models.CharField(max_length=20)),
                ("created_at", models.DateTimeField()),
            ],
            options={"db_table": "enrolments"},
        ),
    ]
