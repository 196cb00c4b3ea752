// SPDX-License-Identifier: Apache-2.0

package tidy

// Rule is one house rule.
type Rule struct {
	Name   string
	Reason string
	check  func(*Repo) []Problem
}

// Check finds the violations of the rule in r.
func (rule Rule) Check(r *Repo) []Problem { return rule.check(r) }

// Rules is every house rule.
func Rules() []Rule {
	return []Rule{
		{"floors", "imports point down: each package is understood from what is below it", checkFloors},
		{"modules", "a library has one importer, so that it can be replaced or patched", checkModules},
		{"signatures", "a library's types end at its importer", checkSignatures},
		{"function", "a function fits on a screen", checkFunctions},
		{"file", "a file is read in one sitting", checkFiles},
		{"package", "a package fits in one head", checkPackages},
		{"columns", "two files fit side by side", checkColumns},
		{"interface", "small interfaces are implemented, faked and decorated", checkInterfaces},
		{"exceptions", "an exception that is not needed any more is removed", checkExceptions},
		{"clock", "time is passed in, so that tests and the simulator own it", checkClock},
		{"sleep", "a test that sleeps is slow or flaky", checkSleep},
		{"background", "work ends when its caller does", checkBackground},
		{"panic", "a panic is a bug, everything else an error", checkPanic},
		{"errors", "errors read as operation object: cause", checkErrorTexts},
		{"globals", "state belongs to values: two of anything can run side by side", checkGlobals},
		{"init", "importing a package does nothing", checkInit},
		{"atomics", "typed atomics cannot be read without the atomic", checkAtomics},
		{"goroutines", "who starts a goroutine waits for it", checkGoroutines},
		{"logs", "log messages are constants, to be searched for", checkLogs},
		{"testing", "test helpers stay out of the product", checkTesting},
		{"assert", "a failed expectation ends the test", checkAssert},
		{"license", "every file names its licence", checkLicense},
		{"imports", "imports stand in three blocks: std, third party, ours", checkImports},
		{"docs", "a package says what it is", checkPackageDocs},
		{"invariants", "the main packages tell model, invariants, concurrency, failure", checkMainDocs},
		{"todo", "what is not done is in an issue, not in the code", checkTodo},
		{"links", "documents link to what exists", checkLinks},
		{"hosts", "a clone builds anywhere: no registry is named", checkHosts},
		{"paths", "a clone builds anywhere: no path of one machine", checkPaths},
		{"citations", "the rules R1 to R22 are all there are", checkCitations},
	}
}
