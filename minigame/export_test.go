package minigame

// SignatureTable returns the table of server calls: the path, and which signatures and
// repetitions each has.
func SignatureTable() map[string][3]bool {
	table := map[string][3]bool{}
	for _, call := range calls {
		table[call.path] = [3]bool{call.paySig, call.userSig, call.repeat != never}
	}
	return table
}

// MeaningCodes returns every errcode of the table, for the documentation.
func MeaningCodes() (codes []int64) {
	for code := range meanings {
		codes = append(codes, code)
	}
	return codes
}

// calls are all of them, for the tests.
var calls = []serverCall{
	callGameOrder, callCoinBalance, callSpendCoins, callReturnCoins, callGiveCoins,
	callTokenBalance, callSpendTokens, callReturnTokens, callGiveTokens, callProgramOrder, callNotifyDelivered, callRefundOrder,
	callStartDownload, callQueryDownload, callBill, callAppleBill,
}
