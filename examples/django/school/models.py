"""Enrolments."""

from django.db import models


class Enrolment(models.Model):
    """At most one of them is active per user and course."""

    user_id = models.IntegerField()
    course_id = models.IntegerField()
    status = models.CharField(max_length=20)
    created_at = models.DateTimeField()
    notes = models.TextField(null=True)

    class Meta:
        db_table = "enrolments"
        constraints = [
            models.UniqueConstraint(
                fields=["user_id", "course_id"], condition=models.Q(status="active"), name="one_active_enrolment"
            )
        ]
