// Decides when the browser may upscale a part of an image: only before the backend is up. The rest is loaded then.

export class BootPreview {
  constructor(job) {
    Object.assign(this, { job, control: null, planned: null });
  }

  /** Load and start the preview unless the backend is up; `name` is the chosen variant. Examples are usually cached. */
  start(name) {
    const { job } = this;
    if (job.isExample || !this.planned?.width || !["asleep", "booting"].includes(job.owner.backend.state)) return;
    this.control = new AbortController();
    const run = ({ previewTile }) => previewTile(job, this.planned, name, this.control);
    import("./preview-tile.js").then(run).catch(() => null); // the result arrives anyway
  }

  /** End the computation. What is shown stays until bands or the result replace it. */
  stop() {
    this.control?.abort();
  }

  /** End the computation and remove what is shown, unless bands have arrived. */
  drop() {
    this.stop();
    const { stage } = this.job;
    if (stage?.element.dataset.preview && !stage.element.dataset.rows) this.job.closeStage();
  }

  /** The server has chosen the variant: a preview of another one would mislead. */
  choose(variant) {
    if (this.control && this.control.variant !== variant) this.drop();
  }

  /** The request has ended. */
  end() {
    this.stop();
    Object.assign(this, { control: null, planned: null });
  }
}
