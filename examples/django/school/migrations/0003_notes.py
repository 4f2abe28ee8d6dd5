"""A later migration, which the deployment does not know."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("school", "0002_one_active_enrolment")]
    operations = [migrations.AddField("enrolment", "notes", models.TextField(null=True))]
