// SPDX-License-Identifier: Apache-2.0

//go:build unix && !linux

package rocketmq

import "syscall"

func childAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
