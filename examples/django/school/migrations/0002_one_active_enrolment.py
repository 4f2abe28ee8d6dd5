"""At most one active enrolment per user and course. A deployment has built it where duplicates were."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("school", "0001_enrolments")]
    operations = [
        migrations.AddConstraint(
            "enrolment",
            models.UniqueConstraint(
                fields=["user_id", "course_id"], condition=models.Q(status="active"), name="one_active_enrolment"
            ),
        ),
    ]
