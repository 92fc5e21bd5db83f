"""Settings of the course; nbgrader reads them where it is called in this folder."""

c = get_config()  # noqa: F821
c.CourseDirectory.course_id = "widemin"
# A cell that never ends is interrupted; the cells after it are graded all the same.
c.ExecutePreprocessor.timeout = 60
c.ExecutePreprocessor.interrupt_on_timeout = True
