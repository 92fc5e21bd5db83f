"""Settings of the course; nbgrader reads them where it is called in this folder."""

from nbconvert.preprocessors import CSSHTMLHeaderPreprocessor
from nbgrader.preprocessors import ClearHiddenTests, GetGrades

c = get_config()  # noqa: F821
c.CourseDirectory.course_id = "widemin"
# A cell that never ends is interrupted; the cells after it are graded all the same.
c.ExecutePreprocessor.timeout = 60
c.ExecutePreprocessor.interrupt_on_timeout = True
# Who handed in what: ann_lab1_width.ipynb; by Canvas ann_LATE_1_2_lab1_width-1.ipynb;
# by Moodle Ann Smith_12_assignsubmission_file/lab1_width.ipynb, or _ in place of the /.
c.FileNameCollectorPlugin.named_regexp = (
    r".*/(?P<student_id>[^/_]+)_(?:[^/]*/)?[^/]*?(?P<file_id>lab\d_[a-z]+)[^/]*\.ipynb$"
)


class MessagesAlone(ClearHiddenTests):
    """Leave of a hidden test its message: no source, no traceback that shows it."""

    def preprocess_cell(self, cell, resources, cell_index):
        """Change a cell of a page of feedback."""
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                output.traceback = [f"{output.ename}: {output.evalue}"]
        return super().preprocess_cell(cell, resources, cell_index)


c.GenerateFeedback.preprocessors = [GetGrades, MessagesAlone, CSSHTMLHeaderPreprocessor]
