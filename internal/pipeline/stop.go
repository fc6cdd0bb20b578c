package pipeline

import (
	"context"
	"fmt"
)

// announceStop says at a stop what its end waits for.
func announceStop(ctx context.Context, p *Pipeline) {
	<-ctx.Done()
	waitsFor := []string{}
	for _, job := range p.jobs.list() {
		if job.State == jobWorking {
			waitsFor = append(waitsFor, fmt.Sprintf("%s of image %d (%s)", job.Stage, job.Image, job.Key))
		}
	}
	p.log.Info().Strs("waits_for", waitsFor).Dur("at_most_ms", p.cfg.Grace).
		Msg("stopping: nothing new is taken; a second signal ends the process at once")
}
