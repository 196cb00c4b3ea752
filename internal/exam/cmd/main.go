// SPDX-License-Identifier: Apache-2.0

// Command cmd plants known mistakes in the product, one at a time, and sees what guards it fail:
// go run ./internal/exam/cmd. It must run at the root of the repository.
//
//	-quick     only the dozen that the simulation finds soonest
//	-only a,b  only the mistakes, or the guards, whose words hold a or b
//	-jobs n    guards at the same time (2)
//	-write     write the findings and docs/guarantees.md
//	-document  only write docs/guarantees.md from the findings that there are
//
// It exits 1 when a mistake is not found.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"

	"github.com/cicadamq/cicada/internal/exam"
)

const (
	findingsPath = "internal/exam/testdata/exam.json"
	documentPath = "docs/guarantees.md"
)

func main() {
	run := exam.Run{Root: ".", Go: "go", Out: os.Stdout, Now: time.Now}
	flag.BoolVar(&run.Quick, "quick", false, "only the dozen that the simulation finds soonest")
	flag.StringVar(&run.Only, "only", "", "only the mistakes, or the guards, whose words hold this")
	flag.IntVar(&run.Jobs, "jobs", 2, "guards at the same time")
	write := flag.Bool("write", false, "write the findings and "+documentPath)
	document := flag.Bool("document", false, "only write "+documentPath)
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := sit(ctx, &run, *write, *document)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func sit(ctx context.Context, run *exam.Run, write, document bool) error {
	before, err := exam.Load(findingsPath)
	if err != nil {
		return err
	}
	if document {
		return writeDocument(exam.Merge(before, nil))
	}
	if run.Work, err = os.MkdirTemp("", "cicada-exam-"); err != nil {
		return err
	}
	start := time.Now()
	findings, err := run.All(ctx, before)
	err = errors.Join(err, os.RemoveAll(run.Work))
	fmt.Printf("%d guards tried in %v\n", len(findings), time.Since(start).Round(time.Second))
	if !write || ctx.Err() != nil {
		return err
	}
	merged := exam.Merge(before, findings)
	return errors.Join(err, exam.Save(findingsPath, merged), writeDocument(merged))
}

func writeDocument(findings []exam.Finding) error {
	return os.WriteFile(documentPath, []byte(exam.Document(findings)), 0o644)
}
